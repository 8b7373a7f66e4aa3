"""The node classes that the embedded server implements, by class name.

Importing this imports neither NumPy nor Pillow: what a node does is imported when it first runs (`own_classes`).
"""

from sweeper.embedded.nodes.own_classes import NODE_CLASSES as NODE_CLASSES
