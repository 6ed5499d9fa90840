"""The pages on which runs are looked at: report.html, and the live page of `detector monitor`.

Neither torch nor numpy is imported here. The style and the scripts are in `static`; what comes from a run is data
to them, never markup.
"""
