// Three engines from Debian's packages behind one small interface. Playwright drives Chromium, and
// the stock Firefox by WebDriver BiDi.
import fs from 'node:fs/promises';
import os from 'node:os';
import {firefox} from 'playwright-core';
import {launch as launchChromium, program} from './support.mjs';
import {WebKit} from './webkit.mjs';

/** Each starts a browser with a profile in `home`. */
const ENGINES = {
  Chromium: async () => Playwright.start(await launchChromium()),
  Firefox: async home => Playwright.start(await launchFirefox(home)),
  WebKit: home => WebKit.start(home),
};
export const engines = Object.keys(ENGINES);

/** A browser with `open(url)`, which resolves to a Tab, and `close()`. All tabs have one profile. */
export async function launch(engine) {
  const home = await fs.mkdtemp(`${os.tmpdir()}/novcomet-browser.`);
  const browser = await ENGINES[engine](home);
  return {
    async open(url) {
      const tab = new Tab(await browser.newPage());
      await tab.goto(url);
      return tab;
    },
    async close() {
      await browser.close();
      await fs.rm(home, {recursive: true, force: true, maxRetries: 10});     // its last processes may still write
    },
  };
}

/**
 * Root may not run Firefox in the home of another user. The variable of Mozilla lets the preference
 * count by which a driven Firefox asks no server for its settings.
 */
const launchFirefox = home => firefox.launch({
  channel: 'moz-firefox', executablePath: program('firefox-esr'),
  env: {PATH: process.env.PATH, TMPDIR: os.tmpdir(), HOME: home, MOZ_REMOTE_SETTINGS_DEVTOOLS: '1'},
});

class Playwright {
  static async start(browser) {
    return Object.assign(new Playwright(), {browser, context: await browser.newContext()});
  }

  newPage() { return this.context.newPage(); }

  close() { return this.browser.close(); }
}

class Tab {
  constructor(page) { Object.assign(this, {page}); }

  /** Calls a function in the page. Resolves to what it returns or what its promise resolves to. */
  evaluate(f, ...args) { return this.page.evaluate(`(${f})(...${JSON.stringify(args)})`); }

  /** Resolves when the page is loaded. */
  goto(url) { return this.page.goto(url); }

  /** As the back button does. */
  back() { return this.evaluate(() => { history.back(); }); }

  close() { return this.page.close(); }
}
