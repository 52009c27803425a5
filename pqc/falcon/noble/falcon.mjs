// Answers requests, one of JSON a line, with what @noble/post-quantum says. Byte strings are in hexadecimal.
import { createInterface } from 'node:readline';
import * as falcon from '@noble/post-quantum/falcon.js';

const bytes = (hex) => Uint8Array.from(Buffer.from(hex ?? '', 'hex'));
const hex = (b) => Buffer.from(b).toString('hex');

const answer = {
  keygen(scheme, { seed }) {
    const { publicKey, secretKey } = scheme.keygen(bytes(seed));
    return { publicKey: hex(publicKey), secretKey: hex(secretKey) };
  },
  publicKey: (scheme, { secretKey }) => ({ publicKey: hex(scheme.getPublicKey(bytes(secretKey))) }),
  sign: (scheme, { message, secretKey }) => ({ signature: hex(scheme.sign(bytes(message), bytes(secretKey))) }),
  verify: (scheme, { signature, message, publicKey }) => ({
    valid: scheme.verify(bytes(signature), bytes(message), bytes(publicKey)),
  }),
};

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  const scheme = falcon[`falcon${request.degree}${request.padded ? 'padded' : ''}`];
  console.log(JSON.stringify(answer[request.do](scheme, request)));
}
