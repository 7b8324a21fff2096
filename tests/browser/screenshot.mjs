// Makes the picture of the demo page: tests/run node tests/browser/screenshot.mjs docs/demo.png
import {Server, connected, hears, launch, open, say} from './support.mjs';

const server = await Server.start('apache');
const browser = await launch(`--host-resolver-rules=MAP www.example.org 127.0.0.1:${server.port}`);
try {
  const context = await browser.newContext({viewport: {width: 1280, height: 800}, colorScheme: 'light'});
  await context.route(/about=1/, route => route.fulfill({json: {store: 'file:///dev/shm'}}));
  const [page, other] = [await open(context, 'http://www.example.org/novcomet/'), await open(context, 'http://www.example.org/novcomet/')];
  for (const window of [page, other]) await connected(window);
  await server.publish('demo', 'Hello from a shell');
  await say(other, 'Hello from the other window');
  await hears(page, 'demo', 2);
  await say(page, 'Hello back');
  await hears(page, 'demo', 3);
  await server.touch('demo');
  await hears(page, 'demo', 4);
  await say(page, 'It works');
  await hears(page, 'demo', 5);
  await page.bringToFront();
  await page.evaluate(() => {
    for (const animation of document.getAnimations()) animation.finish();
  });
  await page.screenshot({path: process.argv[2]});
} finally {
  await browser.close();
  await server.close();
}
