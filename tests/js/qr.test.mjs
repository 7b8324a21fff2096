// The QR codes of the demo page, read by another program.
import assert from 'node:assert/strict';
import {it} from 'node:test';
import jsqr from 'jsqr';
import '../../htdocs/qr.js';

const QUIET = 4, SCALE = 3, LONGEST = 180;

/** An image of the code with its quiet zone, as RGBA. */
const draw = rows => {
  const size = (rows.length + 2 * QUIET) * SCALE, image = new Uint8ClampedArray(size * size * 4).fill(255);
  for (let y = 0; y < size; y++) for (let x = 0; x < size; x++) {
    const [row, column] = [y, x].map(pixel => Math.floor(pixel / SCALE) - QUIET);
    if (rows[row]?.[column]) image.fill(0, (y * size + x) * 4, (y * size + x) * 4 + 3);
  }
  return [image, size, size];
};

const read = rows => jsqr(...draw(rows), {inversionAttempts: 'dontInvert'});
const address = length => `http://192.168.178.20/${'novcomet/'.repeat(30)}`.slice(0, length);

it('each length is read back, in each version', () => {
  const versions = new Set();
  for (let length = 1; length <= LONGEST; length++) {
    const text = address(length), {data, version} = read(qrCode(text)) ?? {};
    assert.equal(data, text);
    versions.add(version);
  }
  assert.deepEqual([...versions], [1, 2, 3, 4, 5, 6, 7, 8, 9]);
});

it('addresses of any kind are read back', () => {
  for (const text of [
    'http://10.0.0.1/novcomet/', 'https://example.org/novcomet/', 'http://[fe80::1]:8080/novcomet/?a=b&c=%20#d',
    'https://xn--zrich-kva.example/novcomet/', 'Zürich € 😀', '\0\x7f', '0123456789', 'HTTP://EXAMPLE.ORG/',
  ]) {
    assert.deepEqual(Buffer.from(read(qrCode(text)).binaryData), Buffer.from(text), text);
  }
});

/** A few wrong modules are corrected. */
it('a damaged code is read back', () => {
  const rows = qrCode(address(100));
  for (let y = 20; y < 24; y++) for (let x = 20; x < 24; x++) rows[y][x] ^= 1;
  assert.equal(read(rows).data, address(100));
});

it('a longer text has no code', () => {
  assert.equal(qrCode(address(LONGEST + 1)), null);
  assert.equal(qrCode('€'.repeat(LONGEST / 3 + 1)), null);
});
