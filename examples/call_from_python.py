"""Calls the endpoints: embeddings by OpenAI's client, similar products and attributes by httpx.

python examples/call_from_python.py                          # the endpoints of clusters/local.yaml
python examples/call_from_python.py http://127.0.0.1:8000
"""

from __future__ import annotations

import sys

import httpx
import openai


def main(endpoint: str) -> None:
    with openai.OpenAI(base_url=f"{endpoint}/v1", api_key="none") as client:
        answer = client.embeddings.create(model="eclip", input=["red summer dress", "검정 운동화"])
    first, second = (row.embedding for row in answer.data)
    cosine = sum(a * b for a, b in zip(first, second, strict=True))
    print(f"{answer.model}: vectors of {len(first)} numbers, cosine {cosine:.3f}")

    with httpx.Client(base_url=endpoint, timeout=60) as http:
        seed = ask(http.get("/v1/products", params={"limit": 1}))["data"][0]
        similar = ask(http.post("/v1/similar", json={"product_id": seed["product_id"], "k": 5}))
        print(f"\nsimilar to {seed['product_id']} {seed['title']}")
        for row in similar["data"]:
            print(f"  {row['score']:.3f}  {row['product_id']} {row['title']}")

        attributes = ask(http.post("/v1/attributes", json={"text": seed["title"]}))
        print("\nattributes of the title, as far as the model is sure")
        for row in attributes["data"]:
            if row["answered"]:
                print(f"  {row['key']}: {row['value']} ({row['probability']:.0%})")


def ask(answer: httpx.Response) -> dict:
    """The JSON of an answer. An error has a `code`, a `message` and, if an input is at fault, its `param`."""
    if answer.is_error:
        error = answer.json()["error"]
        raise SystemExit(f"{answer.status_code} {error['code']}: {error['message']}")
    return answer.json()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000")
