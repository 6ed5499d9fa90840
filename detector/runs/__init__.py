"""Run folders as others see them: what they hold, which there are, how they differ, and how to end a run.

Reading a run imports neither torch nor matplotlib, and takes nothing in a folder for granted: it may be a stranger's.
"""
