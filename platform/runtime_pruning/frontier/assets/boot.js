"use strict";
listen();
take(JSON.parse(document.getElementById("data").textContent));
follow();
