"""What a disk may hold after the power went: file operations are recorded, and replayed without what was not synced."""
