"""Where the dataclasses of the pure floors and protobuf meet: on the wire, on disk and in the log alike."""
