"""How two pictures differ, in numbers: decoding to one scale, and the measures themselves.

The door is `sweeper.images.compare`; what a regression check makes of the numbers does not live here.
"""
