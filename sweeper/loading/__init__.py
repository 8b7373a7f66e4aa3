"""From the texts that users write to checked values: YAML and JSON with lines, templates with their slots, experiments.

`sweeper.loading.load` opens the files and calls this; nothing here touches a disk.
"""
