"""The settings: what can be set, how it is read, and what makes no sense together.

option.py   what is known of an option: help, unit, range, secret
text.py     what a text may be: hosts, URIs, codes
tree.py     every option, once
keys.py     dotted keys
rules.py    what one value alone cannot say
reader.py   files and tables into a tree, with every problem together
running.py  what a running door takes over
page.py, schema.py   docs/settings.md and docs/settings.schema.json
"""
