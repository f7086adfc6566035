"""The door: events and products come in here, are cleaned, and are durable before they are acknowledged."""
