// Signs tokens with Node's own cryptography. It shares no code with the
// program that checks them.
//
//   node mint.mjs keys DIR              makes every key, fresh, in DIR
//   node mint.mjs sign DIR < requests   a line of JSON for each token, such as
//     {"alg": "HS256", "key": "hs", "header": "{…}", "claims": "{…}"}
//
// `header` and `claims` are texts, so they can be invalid JSON too.
import crypto from 'node:crypto';
import fs from 'node:fs';

const [, , command, dir] = process.argv;
const base64url = (data) => Buffer.from(data).toString('base64url');

function keys() {
  const save = (name, {publicKey, privateKey}) => {
    fs.writeFileSync(`${dir}/${name}.pub`, publicKey.export({type: 'spki', format: 'pem'}));
    fs.writeFileSync(`${dir}/${name}`, privateKey.export({type: 'pkcs8', format: 'pem'}));
  };
  for (const name of ['hs', 'hs2']) fs.writeFileSync(`${dir}/${name}`, crypto.randomBytes(32).toString('hex') + '\n');
  save('ed', crypto.generateKeyPairSync('ed25519'));
  save('ed2', crypto.generateKeyPairSync('ed25519'));
  save('es', crypto.generateKeyPairSync('ec', {namedCurve: 'P-256'}));
  save('es384', crypto.generateKeyPairSync('ec', {namedCurve: 'P-384'}));
  save('rs', crypto.generateKeyPairSync('rsa', {modulusLength: 2048}));
  save('rs1024', crypto.generateKeyPairSync('rsa', {modulusLength: 1024}));
}

function signature(alg, file, text) {
  const data = Buffer.from(text);
  const key = fs.readFileSync(`${dir}/${file}`);
  switch (alg) {
    case 'none': return '';
    case 'HS256': return crypto.createHmac('sha256', key.toString().trimEnd()).update(data).digest();
    // An attacker uses the public file as the secret.
    case 'HS256 by file': return crypto.createHmac('sha256', key).update(data).digest();
    case 'HS512': return crypto.createHmac('sha512', key.toString().trimEnd()).update(data).digest();
    case 'EdDSA': return crypto.sign(null, data, key);
    case 'ES256': return crypto.sign('sha256', data, {key, dsaEncoding: 'ieee-p1363'});
    case 'ES256 with low s': return withS(crypto.sign('sha256', data, {key, dsaEncoding: 'ieee-p1363'}), false);
    case 'ES256 with high s': return withS(crypto.sign('sha256', data, {key, dsaEncoding: 'ieee-p1363'}), true);
    case 'EdDSA with S + L': return plusOrder(crypto.sign(null, data, key));
    case 'RS256 with a leading zero': return Buffer.concat([Buffer.alloc(1), crypto.sign('sha256', data, key)]);
    case 'ES256 in DER': return crypto.sign('sha256', data, key);
    case 'RS256': return crypto.sign('sha256', data, key);
    case 'RS512': return crypto.sign('sha512', data, key);
    case 'PS256': return crypto.sign('sha256', data, {key, padding: crypto.constants.RSA_PKCS1_PSS_PADDING});
  }
  throw new Error(alg);
}

const number = (bytes) => BigInt(`0x${bytes.toString('hex')}`);
const bytesOf = (number) => Buffer.from(number.toString(16).padStart(64, '0'), 'hex');

/** A signature of ECDSA with s in the one half or the other of P-256's order (FIPS 186-5). */
function withS(signature, high) {
  const order = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
  const s = number(signature.subarray(32));
  return Buffer.concat([signature.subarray(0, 32), bytesOf(s > order / 2n === high ? s : order - s)]);
}

/** A signature of Ed25519 whose S, in little-endian, is larger by the group's order (RFC 8032 §5.1.7). */
function plusOrder(signature) {
  const order = 2n ** 252n + 27742317777372353535851937790883648493n;
  const s = number(Buffer.from(signature.subarray(32)).reverse());
  return Buffer.concat([signature.subarray(0, 32), bytesOf(s + order).reverse()]);
}

if (command === 'keys') keys();
if (command === 'sign') {
  for (const line of fs.readFileSync(0, 'utf8').trim().split('\n')) {
    const {alg, key, header, claims} = JSON.parse(line);
    const text = `${base64url(header)}.${base64url(claims)}`;
    console.log(`${text}.${base64url(signature(alg, key, text))}`);
  }
}
