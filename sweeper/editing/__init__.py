"""Build an experiment without YAML: make its folder from a workflow, edit its file from a page, and run it.

The file is the truth: the page changes it by position, keeps its comments, and shows the command of all that it does.
"""
