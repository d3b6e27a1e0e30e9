"""Pages, with their files in `static/`; loaded only when one is on.

doorstation try trial.py (two stations and the page), try_page.py
an owner's      claim_page.py
"""
