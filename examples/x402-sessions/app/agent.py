"""The agent: its tools, each behind its price, over HTTP and over MCP."""

from fastapi import FastAPI
from starlette.routing import Route

from api.gate.gate import Gate
from api.gate.unpaid import BeginsUnpaid
from api.mcp.endpoint import McpEndpoint
from api.mcp.paid_tool import sold_tool
from app.tools import get_content, put_content
from engine.selling.till import Till


def create_agent(till: Till, *names: str) -> FastAPI:
    """`POST /tools/put-content` and `POST /tools/get-content`, sold by x402, and both at `/mcp`.

    `names` are those by which `/mcp` is reached, beside `localhost`.
    """
    agent = FastAPI(title="x402-sessions")
    agent.add_middleware(BeginsUnpaid)
    gate = Gate(till)
    tools = []
    for name, tool, run, arguments in (
        ("put-content", put_content, put_content.put_content, put_content.Entry),
        ("get-content", get_content, get_content.get_content, get_content.Key),
    ):
        path = f"/tools/{name}"
        agent.post(path, summary=tool.DESCRIPTION)(gate.sells(tool.PRICE)(run))
        tools.append(sold_tool(path, name=name, description=tool.DESCRIPTION, arguments=arguments))
    agent.router.routes.append(Route("/mcp", McpEndpoint(lambda: tools, names, principals=False)))
    return agent
