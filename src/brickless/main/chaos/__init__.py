"""`brickless chaos`: records what real updates write to a disk, and judges every power cut in between.

The states and the judge are `testkit.crashlab`; here are the cases, on a real hub and emulated devices.
"""
