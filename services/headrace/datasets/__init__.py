"""Real shops' records and a simulated shop, as the events and products that a storefront would send."""
