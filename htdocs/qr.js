// `qrCode(text)`: the QR code (ISO/IEC 18004) of a text of up to 180 bytes, as rows of 0 and 1.
// It has bytes, the error correction level M, a version from 1 to 9, and always the mask 0.
{
  /** For each version: the error correction codewords of a block, and the number of blocks. */
  const BLOCKS = [[10, 1], [16, 1], [26, 1], [18, 2], [24, 2], [16, 4], [18, 4], [22, 4], [22, 5]];
  /** The level and the mask, and the version, with the check bits of the standard's tables. */
  const FORMAT = 0x5412, VERSIONS = {7: 0x07c94, 8: 0x085bc, 9: 0x09a99};
  const PADDING = [0xec, 0x11];

  // Codewords

  /** In GF(256) of x⁸ + x⁴ + x³ + x² + 1. */
  const multiply = (a, b) => {
    let product = 0;
    for (; b; b >>= 1, a = a << 1 ^ (a >> 7) * 0x11d) if (b & 1) product ^= a;
    return product;
  };

  /** The product of x + 2ⁱ for each i below `degree`, from the second coefficient on. */
  const generator = degree => {
    let polynomial = [1];
    for (let i = 0, root = 1; i < degree; i++, root = multiply(root, 2)) {
      polynomial = [...polynomial, 0].map((c, j) => c ^ multiply(polynomial[j - 1] ?? 0, root));
    }
    return polynomial.slice(1);
  };

  /** The Reed-Solomon codewords of a block. */
  const correction = (block, count) => {
    const divisor = generator(count);
    return block.reduce((rest, byte) => {
      const factor = byte ^ rest[0];
      return [...rest.slice(1), 0].map((c, i) => c ^ multiply(divisor[i], factor));
    }, Array(count).fill(0));
  };

  /** The mode (4), the length, the bytes and the terminator (0). All are half a byte late. */
  const encode = (bytes, capacity) => {
    const late = [4, bytes.length, ...bytes, 0];
    const data = late.slice(1).map((byte, i) => (late[i] & 15) << 4 | byte >> 4);
    while (data.length < capacity) data.push(PADDING[(data.length - bytes.length) % 2]);
    return data;
  };

  /** The last blocks are one longer if `data` cannot be divided equally. */
  const split = (data, count) => {
    const length = Math.floor(data.length / count), short = count - data.length % count;
    return Array.from({length: count}, (_, i) => {
      const start = i * length + Math.max(0, i - short);
      return data.slice(start, start + length + (i >= short));
    });
  };

  /** The first codewords of all blocks, then the second ones. */
  const interleave = blocks =>
    blocks.at(-1).flatMap((_, i) => blocks.map(block => block[i])).filter(byte => byte !== undefined);

  // Modules. A free one is undefined.

  /** Squares around a center, by their distance from it. */
  const drawSquares = (grid, y, x, distances, isDark) => {
    for (let dy = -distances; dy <= distances; dy++) for (let dx = -distances; dx <= distances; dx++) {
      const row = grid[y + dy];
      if (row && x + dx in row) row[x + dx] = +isDark(Math.max(Math.abs(dx), Math.abs(dy)));
    }
  };

  const drawFinders = (grid, end = grid.length - 4) => {
    for (const [y, x] of [[3, 3], [3, end], [end, 3]]) drawSquares(grid, y, x, 4, far => far !== 2 && far < 4);
  };

  const drawAlignments = (grid, version) => {
    const end = grid.length - 7, centers = version > 6 ? [6, (6 + end) / 2, end] : [6, end];
    for (const y of version > 1 ? centers : []) for (const x of centers) {
      if (grid[y][x] === undefined) drawSquares(grid, y, x, 2, far => far !== 1);
    }
  };

  const drawTiming = grid => {
    for (let i = 8; i < grid.length - 8; i++) grid[6][i] = grid[i][6] = +(i % 2 === 0);
  };

  const drawFormat = grid => {
    const {length} = grid, near = [0, 1, 2, 3, 4, 5, 7, 8];
    for (let i = 0; i < 15; i++) {
      const bit = FORMAT >> i & 1;
      if (i < 8) grid[near[i]][8] = grid[8][length - 1 - i] = bit;
      else grid[8][near[14 - i]] = grid[length - 15 + i][8] = bit;
    }
    grid[length - 8][8] = 1;
  };

  const drawVersion = (grid, version) => {
    for (let i = 0; version in VERSIONS && i < 18; i++) {
      const near = Math.floor(i / 3), far = grid.length - 11 + i % 3;
      grid[near][far] = grid[far][near] = VERSIONS[version] >> i & 1;
    }
  };

  const emptyCode = version => {
    const length = 17 + 4 * version, grid = Array.from({length}, () => Array(length).fill());
    drawFinders(grid);
    drawAlignments(grid, version);
    drawTiming(grid);
    drawFormat(grid);
    drawVersion(grid, version);
    return grid;
  };

  /** The free modules: up and down in pairs of columns, from the right, without the column of the timing. */
  const freeModules = grid => {
    const last = grid.length - 1, free = [];
    for (let x = last, up = true; x > 0; x -= x === 8 ? 3 : 2, up = !up) {
      for (let i = 0; i <= last; i++) {
        const y = up ? last - i : i;
        for (const column of [x, x - 1]) if (grid[y][column] === undefined) free.push([y, column]);
      }
    }
    return free;
  };

  const fill = (grid, free, codewords) => free.forEach(([y, x], i) => {
    const bit = codewords[i >> 3] >> 7 - i % 8 & 1;     // 0 after the last codeword
    grid[y][x] = bit ^ (y + x) % 2 === 0;
  });

  /** The rows from the top, or null if the text is too long. */
  globalThis.qrCode = text => {
    const bytes = new TextEncoder().encode(text);
    for (const [i, [perBlock, count]] of BLOCKS.entries()) {
      const grid = emptyCode(i + 1), free = freeModules(grid), capacity = (free.length >> 3) - perBlock * count;
      if (bytes.length + 2 > capacity) continue;
      const blocks = split(encode(bytes, capacity), count);
      const corrections = blocks.map(block => correction(block, perBlock));
      fill(grid, free, [...interleave(blocks), ...interleave(corrections)]);
      return grid;
    }
    return null;
  };
}
