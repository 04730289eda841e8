// Takes webhooks from hookline: verifies the signature, keeps each delivery once
// in the folder inbox, and answers. What is to be done about a delivery is done
// later, by whoever empties the inbox.
//
//   npm install standardwebhooks
//   ADDR=127.0.0.1:9000 WEBHOOK_SECRET=whsec_... node receive.mjs

import { createServer } from "node:http";
import { link, mkdir, open, unlink } from "node:fs/promises";
import { randomUUID } from "node:crypto";
import { Webhook } from "standardwebhooks";
import { PublicKey } from "./ed25519.mjs";

const secret = process.env.WEBHOOK_SECRET;
const webhook = secret.startsWith("whpk_") ? new PublicKey(secret) : new Webhook(secret);
await mkdir("inbox", { recursive: true });

async function receive(request) {
  // The bytes as they came: a body that was parsed and written anew has another signature.
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  try {
    webhook.verify(body.toString("utf8"), request.headers);
  } catch {
    return 401;
  }
  // The same id on every attempt: what is there already was processed, or will be.
  await keep(`inbox/${request.headers["webhook-id"]}`, body);
  return 204; // only now, when it is safe: hookline will not send it again
}

// keep writes the file whole or not at all, and only once. A database does the
// same with webhook-id as the primary key.
async function keep(name, body) {
  const temporary = `receiving-${randomUUID()}`;
  const file = await open(temporary, "wx", 0o600);
  try {
    await file.writeFile(body);
    await file.sync();
    await link(temporary, name);
  } catch (error) {
    if (error.code !== "EEXIST") throw error;
  } finally {
    await file.close();
    await unlink(temporary);
  }
}

const server = createServer((request, response) => {
  receive(request)
    .catch((error) => (console.error(error), 503)) // hookline sends it again in 30 s
    .then((status) => response.writeHead(status).end());
});
server.keepAliveTimeout = 60_000; // longer than hookline keeps a connection (30 s)
const [host, port] = process.env.ADDR.split(":");
server.listen(Number(port), host);
