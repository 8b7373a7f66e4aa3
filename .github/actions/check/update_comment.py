"""Create the comment on the pull request, or update the one that an earlier run created.

A failure is a warning: it is the pictures that decide whether the check passes.
"""

from __future__ import annotations

import os
from pathlib import Path

import httpx
from job_log import print_command

AUTHOR = "github-actions[bot]"  # whose token this is; anybody else could copy the marker
MAX_CHARACTERS = 60_000  # GitHub accepts 65,536, and the text after the table needs some


def write_text(marker: str) -> str:
    """The comment, as Markdown that begins with a marker, which a reader does not see."""
    folder, url = Path(os.environ["FOLDER"]), os.environ.get("ARTIFACT_URL")
    summary = (folder / "summary.md").read_text("utf-8")
    if len(summary) > MAX_CHARACTERS:
        summary = summary[:MAX_CHARACTERS].rpartition("\n")[0] + "\n\nThe summary of the job has more.\n"
    server, repository, run = (os.environ[f"GITHUB_{name}"] for name in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
    lines = [marker, summary, f"[The job]({server}/{repository}/actions/runs/{run})."]
    if url:
        lines.append(f"[The results]({url}): open `report/index.html` to see each picture beside the accepted one.")
    if url and os.environ["EXIT_CODE"] == "1":
        lines.append(
            "To accept some, keep their cases on that page, choose *Marks > Export kept cases*, and run"
            " `sweeper accept FOLDER --cases FILE --baseline DIR`; FOLDER is the folder that holds `report`."
        )
    return "\n".join(lines) + "\n"


def find_comment(client: httpx.Client, comments: str, marker: str) -> str | None:
    """The address of our comment, on whichever page of the list it is."""
    address: str | None = f"{comments}?per_page=100"
    while address:
        response = client.get(address).raise_for_status()
        for comment in response.json():
            if (comment["user"] or {}).get("login") == AUTHOR and comment["body"].startswith(marker):
                return str(comment["url"])
        address = response.links.get("next", {}).get("url")
    return None


def main() -> None:
    marker = f"<!-- sweeper check: {os.environ['NAME']} -->"
    text = write_text(marker)
    comments = "{GITHUB_API_URL}/repos/{GITHUB_REPOSITORY}/issues/{PULL_REQUEST}/comments".format_map(os.environ)
    headers = {"Authorization": f"Bearer {os.environ['GITHUB_TOKEN']}", "Accept": "application/vnd.github+json"}
    try:
        with httpx.Client(headers=headers, timeout=30) as client:
            ours = find_comment(client, comments, marker)
            client.request("PATCH" if ours else "POST", ours or comments, json={"body": text}).raise_for_status()
    except httpx.HTTPStatusError as error:
        refused = error.response.status_code
        advice = (
            "give the job `permissions: pull-requests: write`" if refused in (401, 403, 404) else "run the job again"
        )
        print_command(
            "warning", f"the comment was not written, because GitHub answered with status {refused}; {advice}"
        )
    except httpx.HTTPError as error:
        print_command("warning", f"the comment was not written ({type(error).__name__}: {error}); run the job again")


if __name__ == "__main__":
    main()
