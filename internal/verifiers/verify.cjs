// Checks the signatures in the file named by the first argument by the npm packages
// standardwebhooks and svix. Run by scripts/verify-signatures.sh.
const fs = require("fs");
const requests = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
for (const name of ["standardwebhooks", "svix"]) {
  const { Webhook } = require(name);
  for (const request of requests) {
    const body = Buffer.from(request.body, "base64").toString("utf8");
    const headers = { "webhook-id": request.id, "webhook-timestamp": request.timestamp, "webhook-signature": request.signature };
    for (const secret of request.secrets) {
      const webhook = new Webhook(secret);
      webhook.verify(body, headers);
      let refused = false;
      try { webhook.verify(body + " ", headers); } catch (e) { refused = true; }
      if (!refused) throw new Error(name + ": a changed body was accepted");
    }
  }
}
console.log(requests.length + " requests");
