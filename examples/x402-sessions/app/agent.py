"""The agent: its tools, each behind its price."""

from fastapi import FastAPI

from api.gate.gate import Gate
from api.gate.unpaid import BeginsUnpaid
from app.tools import get_content, put_content
from engine.selling.till import Till


def create_agent(till: Till) -> FastAPI:
    """`POST /tools/put-content` and `POST /tools/get-content`, sold by x402."""
    agent = FastAPI(title="x402-sessions")
    agent.add_middleware(BeginsUnpaid)
    gate = Gate(till)
    for name, tool, run in (
        ("put-content", put_content, put_content.put_content),
        ("get-content", get_content, get_content.get_content),
    ):
        sold = gate.sells(tool.PRICE)(run)
        agent.post(f"/tools/{name}", summary=tool.DESCRIPTION)(sold)
    return agent
