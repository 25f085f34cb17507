"""`tallystick webhooks …`"""

import json
import signal
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from engine.errors import InvalidInput
from tallystick.cli.connection import DEFAULT_URL, ApiKey, AsJson, Key, Url, as_operator
from tallystick.cli.output import console, failed, minute, print_json, print_line, table
from tallystick.cli.signals import leave
from tallystick.defaults import PAGE_MAX

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

WebhookId = Annotated[str, typer.Argument(help="The webhook's id.")]


@app.command("list")
def list_webhooks(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """List webhooks, the oldest first."""
    with as_operator(url, api_key) as client:
        found = client.webhooks.list()
    if as_json:
        print_json(found)
        return
    if not found:
        console.print("no webhooks yet")
        return
    table(
        ("STATE", "ID", "URL", "EVENTS", "WAITING", "LAST SUCCESS"),
        [
            (
                _state(each),
                each["id"],
                each["url"],
                " ".join(each["events"]),
                str(each["waiting"]),
                "never" if each["last_success_at"] is None else minute(each["last_success_at"]),
            )
            for each in found
        ],
    )


@app.command()
def create(
    to: Annotated[str, typer.Argument(metavar="URL", help="Where events are sent.")],
    event: Annotated[
        list[str] | None, typer.Option(help="Only this event; more than once for several.")
    ] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    key: Key = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Have events sent to a URL.

    The secret is shown once.
    """
    with as_operator(url, api_key) as client:
        made = client.webhooks.create(
            to, event or ["*"], description=description, idempotency_key=key
        )
    if as_json:
        print_json(made)
        return
    print_line(f"webhook {made['id']}")
    print_line(f"secret  {made['secret']}")


@app.command()
def delete(
    webhook: WebhookId, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False
) -> None:
    """Have nothing sent there any more."""
    with as_operator(url, api_key) as client:
        client.webhooks.delete(webhook)
    _say({"id": webhook, "deleted": True}, f"{webhook} is deleted", as_json)


@app.command()
def enable(
    webhook: WebhookId, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False
) -> None:
    """Go on with one that was disabled, where it stopped."""
    with as_operator(url, api_key) as client:
        changed = client.webhooks.change(webhook, active=True)
    _say(changed, f"{webhook} is active", as_json)


@app.command()
def disable(
    webhook: WebhookId, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False
) -> None:
    """Send nothing there until it is enabled.

    What happens meanwhile is sent then.
    """
    with as_operator(url, api_key) as client:
        changed = client.webhooks.change(webhook, active=False)
    _say(changed, f"{webhook} is disabled", as_json)


@app.command("rotate-secret")
def rotate_secret(
    webhook: WebhookId,
    key: Key = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Get another secret, shown once; for a day both sign."""
    with as_operator(url, api_key) as client:
        rotated = client.webhooks.rotate_secret(webhook, idempotency_key=key)
    if as_json:
        print_json(rotated)
        return
    print_line(f"secret  {rotated['secret']}")
    until = minute(rotated["previous_valid_until"])
    console.print(f"the one before signs, too, until {until}", soft_wrap=True)


@app.command("test")
def try_webhook(
    webhook: WebhookId,
    event: Annotated[str, typer.Option(help="Which event is made up.")] = "approval.requested",
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> int:
    """Send a made-up event now."""
    with as_operator(url, api_key) as client:
        tried = client.webhooks.test(webhook, event)
    if not tried["success"]:
        return failed("webhook_failed", _came_of(tried), 1)
    if as_json:
        print_json(tried)
    else:
        console.print(f"{tried['event_id']} arrived: {_came_of(tried)}", soft_wrap=True)
    return 0


@app.command()
def logs(
    webhook: WebhookId,
    limit: Annotated[int, typer.Option(min=1, max=PAGE_MAX, help="At most so many.")] = 20,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List what was sent, the newest first."""
    with as_operator(url, api_key) as client:
        found = client.webhooks.logs(webhook, limit=limit)["logs"]
    if as_json:
        print_json(found)
        return
    if not found:
        console.print("nothing was sent yet")
        return
    table(
        ("WHEN", "EVENT", "ID", "CAME OF IT", "RETRY", "NEXT"),
        [
            (
                minute(each["delivered_at"]),
                each["event"],
                each["event_id"],
                _came_of(each),
                str(each["retry_count"]),
                "" if each["next_retry"] is None else minute(each["next_retry"]),
            )
            for each in found
        ],
    )


@app.command()
def replay(
    webhook: WebhookId,
    since: Annotated[str, typer.Option(help="When, such as 2026-01-31T09:00:00Z.")],
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Deliver everything once more that happened since then."""
    with as_operator(url, api_key) as client:
        client.webhooks.replay(webhook, since)
    told = {"id": webhook, "since": since}
    _say(told, f"{webhook} is sent everything since {since}", as_json)


@app.command()
def listen(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Loopback port; 0: any.")] = 3000,
    forward_to: Annotated[
        str | None, typer.Option(help="Where each delivery goes on to, as it came.")
    ] = None,
    event: Annotated[
        list[str] | None, typer.Option(help="Only this event; more than once for several.")
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Show what is delivered here until Ctrl-C.

    By a webhook to this machine that is deleted then.

    The server must be on this machine, too, and TALLYSTICK_WEBHOOK_NETWORKS allow it.
    """
    import httpx

    from tallystick.cli.listening import Listener

    signal.signal(signal.SIGTERM, leave)
    try:
        listener = Listener(port, forward_to, _show)
    except OSError as error:
        raise InvalidInput("--port", f"cannot listen on {port}: {error.strerror}") from error
    except (ValueError, httpx.InvalidURL) as error:
        raise InvalidInput("--forward-to", str(error)) from error
    made: Mapping[str, Any] | None = None
    with as_operator(url, api_key) as client:
        try:
            made = client.webhooks.create(listener.url, event or ["*"], description="listen")
            print_line(f"secret  {made['secret']}")
            print_line(f"listening on {listener.url}")
            listener.serve()
        except KeyboardInterrupt:
            pass
        finally:
            listener.close()
            if made is not None:
                client.webhooks.delete(made["id"])


def _show(body: bytes, status: int) -> None:
    try:
        told = json.loads(body)
        line = f"{told['timestamp']}  {told['event']}  {told['id']}  {status}"
    except (KeyError, TypeError, ValueError):
        line = f"no event of ours  {status}"
    print_line(line)


def _say(found: Mapping[str, Any], line: str, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        console.print(line, markup=False, soft_wrap=True)


def _state(webhook: Mapping[str, Any]) -> str:
    if webhook["active"]:
        return "FAILING" if webhook["failures"] else "ACTIVE"
    reason = webhook["disabled_reason"]
    return "DISABLED" if reason is None else f"DISABLED ({reason})"


def _came_of(attempt: Mapping[str, Any]) -> str:
    if attempt["status_code"] is None:
        return str(attempt["error"])
    return f"status {attempt['status_code']} in {attempt['response_time_ms']} ms"
