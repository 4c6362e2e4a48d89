"""TensorBoard's event files, read by their format.

Source of the format: https://www.tensorflow.org/tutorials/load_data/tfrecord
"""

from __future__ import annotations

import struct

from tensorboardX.proto.event_pb2 import Event

from data_loaders.storage import Location


def events_of(location: Location) -> list[Event]:
    """Of all files of a folder, in the order in which TensorBoard reads them."""
    events = []
    for file in location.children():
        content = file.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            events.append(Event.FromString(content[12 : 12 + size]))
            content = content[16 + size :]
    return events
