"""moto's S3 server with its checks of keys and policies switched on.

moto's checks understand signatures in a header only, and vrs signs addresses. So each signed address is
verified here by botocore's own code and then signed again in a header, for moto to check and to judge.
What S3 says of wrong clocks and of content that has not the checksum it came with, which moto does not look at, is
said here.

Usage: guarded_moto.py PORT FILE; the keys are written to FILE as lines NAME ID SECRET.
"""

import base64
import datetime
import hashlib
import io
import json
import os
import sys
from urllib.parse import parse_qsl, quote, urlencode

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto import settings
from moto.iam.models import iam_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

BUCKET = "arn:aws:s3:::vrs-bucket"
LIST = {"Effect": "Allow", "Action": ["s3:ListBucket", "s3:ListObjects*"], "Resource": [BUCKET]}
READ = {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [BUCKET + "/*"]}
ADD = {"Effect": "Allow", "Action": ["s3:PutObject"], "Resource": [BUCKET + "/*"]}
UNLOCK = {"Effect": "Allow", "Action": ["s3:DeleteObject"], "Resource": [BUCKET + "/*/locks/*"]}
USERS = {
    "owner": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
    "adding": [LIST, READ, ADD, UNLOCK],
    "adding-only": [LIST, READ, ADD],
    "reading": [LIST, READ],
}
TOLERANCE = datetime.timedelta(minutes=15)


def make_users(file):
    iam = iam_backends["123456789012"]["aws"]
    lines = []
    for name, statements in USERS.items():
        iam.create_user("us-east-1", name)
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        iam.put_user_policy(name, "vrs", document)
        key = iam.create_access_key(name)
        SECRETS[key.access_key_id] = key.secret_access_key
        lines.append(f"{name} {key.access_key_id} {key.secret_access_key}\n")
    with open(file + ".new", "w") as out:
        out.writelines(lines)
    os.rename(file + ".new", file)


SECRETS = {}


def in_address(query):
    # S3 signs spaces as %20.
    return urlencode(query, quote_via=quote)


def refusal(start_response, message, code="AccessDenied"):
    status = "403 Forbidden" if code == "AccessDenied" else "400 Bad Request"
    start_response(status, [("Content-Type", "application/xml")])
    return [f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()]


class Guard:
    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        query = dict(parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))
        if "X-Amz-Signature" in query:
            date = datetime.datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ")
            now = datetime.datetime.utcnow()
            if date > now + TOLERANCE:
                return refusal(start_response, "Request is not valid yet")
            if date + datetime.timedelta(seconds=int(query["X-Amz-Expires"])) < now:
                return refusal(start_response, "Request has expired")
            if environ["REQUEST_METHOD"] == "PUT" and "/" in environ["PATH_INFO"].strip("/"):
                body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
                digest = base64.b64encode(hashlib.md5(body).digest()).decode()
                if environ.get("HTTP_CONTENT_MD5") != digest:
                    return refusal(start_response, "The Content-MD5 does not match", "BadDigest")
                environ["wsgi.input"] = io.BytesIO(body)
            self.sign_again(environ, query)
        return self.app(environ, start_response)

    def sign_again(self, environ, query):
        given = query.pop("X-Amz-Signature")
        key, day, region, service, _ = query["X-Amz-Credential"].split("/")
        credentials = Credentials(key, SECRETS.get(key, "unknown"))
        path = environ.get("RAW_URI", environ["REQUEST_URI"]).split("?")[0]
        url = f"http://{environ['HTTP_HOST']}{path}"
        request = AWSRequest(environ["REQUEST_METHOD"], url + "?" + in_address(query))
        request.headers["host"] = environ["HTTP_HOST"]
        request.context["timestamp"] = query["X-Amz-Date"]
        auth = S3SigV4QueryAuth(credentials, service, region)
        canonical = auth.canonical_request(request)
        right = auth.signature(auth.string_to_sign(request, canonical), request) == given
        rest = {name: value for name, value in query.items() if not name.startswith("X-Amz-")}
        environ["QUERY_STRING"] = in_address(rest)
        raw = path + ("?" + environ["QUERY_STRING"] if rest else "")
        environ["RAW_URI"] = environ["REQUEST_URI"] = raw
        signed = AWSRequest(environ["REQUEST_METHOD"], f"http://{environ['HTTP_HOST']}{raw}")
        signed.headers["X-Amz-Content-SHA256"] = "UNSIGNED-PAYLOAD"
        S3SigV4Auth(credentials, service, region).add_auth(signed)
        headers = dict(signed.headers.items())
        if not right:
            headers["Authorization"] += "wrong"
        for name, value in headers.items():
            environ["HTTP_" + name.upper().replace("-", "_")] = value


if __name__ == "__main__":
    make_users(sys.argv[2])
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
    app = Guard(DomainDispatcherApplication(create_backend_app))
    run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=True)
