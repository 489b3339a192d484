"""`ministack` with AUTH=true: an AWS emulator whose own code verifies SigV4 and evaluates IAM policies.

Found out about 1.5.33:

* Only keys that its IAM *issued* are checked (the root key `test` is let through): so a key is created through its API.
* It listens on 0.0.0.0, and opens an MQTT port beside, unless told otherwise.
* A Claude stream is a real eventstream of a dozen frames (`message_start` ... `message_stop`), but sent in one piece
  with a Content-Length; usage is characters / 4 of the messages alone (no system text), without cache tokens and
  without `amazon-bedrock-invocationMetrics`. It never asks for a tool.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import botocore.session
from botocore.config import Config

from tests.lab.environment import clean_environment
from tests.lab.loopback import HOST, answers, free_port
from tests.lab.process import Program
from tests.lab.server import Server

if TYPE_CHECKING:
    from pathlib import Path

REGION = "us-east-1"
ROOT_KEY = "test"
POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "bedrock:InvokeModel*", "Resource": "*"}],
}


@dataclass(frozen=True)
class AwsKey:
    """An access key of the cloud account. The secret is not printed with it."""

    access_key: str
    secret: str

    def environment(self) -> dict[str, str]:
        """The variables by which the AWS default chain finds it."""
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret}

    def __repr__(self) -> str:
        return f"AwsKey({self.access_key})"


def client(service: str, endpoint: str, key: AwsKey) -> Any:
    """A boto client for an emulator: no proxy, no shared configuration files, no retries that would hide a fault."""
    session = botocore.session.Session()
    session.set_config_variable("config_file", "/dev/null")
    session.set_config_variable("credentials_file", "/dev/null")
    session.set_credentials(key.access_key, key.secret)
    config = Config(retries={"total_max_attempts": 1}, proxies={})
    return session.create_client(service, region_name=REGION, endpoint_url=endpoint, config=config)


class Ministack(Server):
    """The emulated account: where it is, and the key of a role that may only invoke models."""

    region = REGION

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.endpoint = f"http://{HOST}:{port}"
        self.key: AwsKey = AwsKey("", "")
        env = clean_environment(
            folder,
            AUTH="true",
            BIND_HOST=HOST,
            GATEWAY_PORT=str(port),
            IOT_MTLS_ENABLED="0",
            SFTP_ENABLED="0",
            MINISTACK_REGION=REGION,
            TMPDIR=str(folder),
        )
        self.program = Program("ministack", [sys.executable, "-m", "ministack"], env=env, folder=folder)

    def wait_ready(self) -> None:
        self.program.wait_until(lambda: answers(f"{self.endpoint}/_ministack/health"), "answering")
        self.key = self.issue_key("llmgw-gateway", POLICY)

    def issue_key(self, user: str, policy: dict[str, Any]) -> AwsKey:
        """Create a user with an inline policy and return the access key that IAM issues for it."""
        iam = client("iam", self.endpoint, AwsKey(ROOT_KEY, ROOT_KEY))
        iam.create_user(UserName=user)
        iam.put_user_policy(UserName=user, PolicyName="llmgw", PolicyDocument=json.dumps(policy))
        issued = iam.create_access_key(UserName=user)["AccessKey"]
        iam.close()
        return AwsKey(issued["AccessKeyId"], issued["SecretAccessKey"])
