"""Turn the files that users write into checked values: experiments, templates with slots, UI-format workflows.

`sweeper.loading.load` opens the files and calls this; nothing here touches a disk.
"""
