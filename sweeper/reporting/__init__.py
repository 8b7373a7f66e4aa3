"""The report: a static folder that shows a run as a grid of pictures; contact sheets; the live view.

`dataset` and `contents` build the page's data, `thumbnails` its small pictures, and `write_report` writes the folder.
`page/` is the page, `contact_sheet` draws contact sheets, `live/` serves the page while a run goes on. Nothing here
submits a job or prints.
"""
