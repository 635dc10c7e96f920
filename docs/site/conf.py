"""Sphinx's settings for the course's site. `docs/site/build.py` writes the pages; nothing here runs a notebook or fetches a file."""

project = "Probe to Steer"
author = "Probe to Steer"
extensions = ["myst_nb"]
html_theme = "furo"
html_title = "Probe to Steer"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["_extra"]
html_copy_source = False
html_show_sourcelink = False
nb_execution_mode = "off"
nb_ipywidgets_js = {}            # its widgets come from a server elsewhere; the pages need none
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
templates_path = []
exclude_patterns = ["_build"]
# A chapter's headings follow its argument and may skip a level.
suppress_warnings = ["myst.header"]
# Furo's colours, darker where text on white needs it.
html_theme_options = {"light_css_variables": {"color-brand-primary": "#0b5c91", "color-brand-content": "#0b5c91"},
                      "dark_css_variables": {"color-brand-primary": "#6cb6ea", "color-brand-content": "#6cb6ea"}}
