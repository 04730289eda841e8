// Verifies signatures of the kind v1a, which the library does not.

import { createPublicKey, verify } from "node:crypto";

export class PublicKey {
  constructor(key) {
    const x = Buffer.from(key.slice("whpk_".length), "base64").toString("base64url");
    this.key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
  }

  // Throws unless the owner of the private key signed the body within the last
  // five minutes.
  verify(body, headers) {
    const moment = headers["webhook-timestamp"];
    if (!(Math.abs(Date.now() / 1000 - Number(moment)) <= 300)) throw new Error("too old, or from the future");
    const signed = Buffer.from(`${headers["webhook-id"]}.${moment}.${body}`);
    for (const signature of headers["webhook-signature"].split(" ")) { // several while a key is changed
      const [kind, value] = signature.split(",");
      if (kind === "v1a" && verify(null, signed, this.key, Buffer.from(value, "base64"))) return;
    }
    throw new Error("no signature fits");
  }
}
