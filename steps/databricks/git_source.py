"""The git repository that a job takes the project from, in the terms of the Jobs API."""

import re
from urllib.parse import urlparse

from steps.common.errors import StepError

_PROVIDERS = (  # part of a repository's host name -> the Jobs API's name of the git provider; the first match counts
    ("github.com", "gitHub"),
    ("gitlab.com", "gitLab"),
    ("bitbucket.org", "bitbucketCloud"),
    ("dev.azure.com", "azureDevOpsServices"),
    ("visualstudio.com", "azureDevOpsServices"),
    ("codecommit", "awsCodeCommit"),
    ("gitlab", "gitLabEnterpriseEdition"),
    ("bitbucket", "bitbucketServer"),
    ("", "gitHubEnterprise"),
)


def git_source(url: str, version: str) -> dict[str, str]:
    """Return the Jobs API's `git_source` for a repository.

    Args:
        version: a branch, a tag as `tags/NAME`, or a full commit; empty for the branch main.

    Raises:
        StepError: the URL has credentials in it.
    """
    address = urlparse(url)
    if address.password or (address.username and address.scheme != "ssh"):
        raise StepError("source is a URL with credentials in it: remove them, and add them to the workspace instead")
    provider = next(provider for part, provider in _PROVIDERS if part in (address.hostname or ""))
    if re.fullmatch(r"[0-9a-f]{40}", version):
        return {"git_url": url, "git_provider": provider, "git_commit": version}
    if version.startswith("tags/"):
        return {"git_url": url, "git_provider": provider, "git_tag": version.removeprefix("tags/")}
    return {"git_url": url, "git_provider": provider, "git_branch": version or "main"}
