import { get } from 'node:http';

function getOnce(url, options) {
  return new Promise((resolve, reject) => {
    const request = get(url, options, async (response) => {
      try {
        let text = '';
        for await (const chunk of response.setEncoding('utf8')) text += chunk;
        resolve(text);
      } catch (error) {
        reject(error);
      }
    });
    request.on('error', reject);
  });
}

/** Gets a URL. After an error of the connection it tries again, at most `retries` times. */
export async function getWithRetry(url, { retries = 3, onRetry = () => {}, ...options } = {}) {
  for (let retry = 1; ; retry++) {
    try {
      return await getOnce(url, options);
    } catch (error) {
      if (retry > retries) throw error;
      onRetry(error, retry);
    }
  }
}
