"""What a disk may hold after the power has gone: file operations recorded, and replayed with what was not synced lost."""
