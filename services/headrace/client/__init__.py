"""What a storefront's backend calls Headrace by: `async with connect(ingest=…, ranker=…) as shop`.

Needs the core dependencies only. Requests and answers are the messages of `headrace.v1`.
"""

from headrace.client.credentials import ApiKey, Bearer, Credentials
from headrace.client.shop import Deadlines, Shop, connect

__all__ = ["ApiKey", "Bearer", "Credentials", "Deadlines", "Shop", "connect"]
