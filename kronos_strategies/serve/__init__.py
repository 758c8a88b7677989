"""`kronos serve`: a local page that forecasts the bars it is given and lists reports; needs the `serve` extra.

data.py offers the bars, forecasts.py computes in the thread of jobs.py, reports.py finds pages, app.py has the
addresses of the page, and server.py decides who is answered.
"""
