"""Make a bucket where MLflow keeps artifacts, unless it is there: ``make_bucket.py NAME``.

The store is the one that ``MLFLOW_S3_ENDPOINT_URL`` and AWS's variables name; it may still be
starting, so it gets a minute.
"""

import os
import sys
import time

import boto3
from botocore.exceptions import ClientError, EndpointConnectionError


def make(name: str, patience_s: float = 60.0) -> None:
    """Return once the bucket exists.

    Raises:
        EndpointConnectionError: nothing answers.
        ClientError: the store refuses, for instance by the password.
    """
    store = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
    ends = time.monotonic() + patience_s
    while True:
        try:
            if name not in [bucket["Name"] for bucket in store.list_buckets()["Buckets"]]:
                store.create_bucket(Bucket=name)
            return
        except (ClientError, EndpointConnectionError):
            if time.monotonic() > ends:
                raise
            time.sleep(1.0)


if __name__ == "__main__":
    make(sys.argv[1])
