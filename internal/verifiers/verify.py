"""Checks the signatures in the file named by the first argument by the PyPI packages
standardwebhooks and svix. Run by scripts/verify-signatures.sh."""
import base64
import json
import sys

import standardwebhooks
import svix.webhooks

requests = json.load(open(sys.argv[1]))
for request in requests:
    body = base64.b64decode(request["body"])
    headers = {"webhook-id": request["id"], "webhook-timestamp": request["timestamp"], "webhook-signature": request["signature"]}
    for secret in request["secrets"]:
        for library in (standardwebhooks.Webhook(secret), svix.webhooks.Webhook(secret)):
            library.verify(body, headers)
            try:
                library.verify(body + b" ", headers)
            except (standardwebhooks.WebhookVerificationError, svix.webhooks.WebhookVerificationError):
                continue
            sys.exit(f"{library.__class__.__module__}: a changed body was accepted")
print(f"{len(requests)} requests")
