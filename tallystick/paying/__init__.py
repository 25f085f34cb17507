"""Answers a 402 (x402, version 2) with a payment that a Tallystick server allowed and signed.

    send ──402 with PAYMENT-REQUIRED──> the offers go to the server ──> it decides, records, signs
      ──> send once more with PAYMENT-SIGNATURE ──> what PAYMENT-RESPONSE says is reported

There is one signature for a request at most, it is sent to the URL that was asked for and to no
other, and nothing of it is logged.
"""

MAX_TIME_S = 300.0
"""So long a call of `fetch` waits for a resource in all, unless it is told otherwise."""
