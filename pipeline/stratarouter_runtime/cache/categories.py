"""Closed categories of names: where both texts name members of one, they must be the same. Data only."""

from __future__ import annotations

CATEGORIES: dict[str, str] = {
    word: category
    for category, words in {
        "country": "afghanistan argentina australia austria bangladesh belgium brazil bulgaria canada chile china "
        "colombia croatia cuba denmark egypt england ethiopia finland france germany ghana greece hungary iceland "
        "india indonesia iran iraq ireland israel italy jamaica japan jordan kenya korea kuwait lebanon libya "
        "malaysia mexico morocco nepal netherlands nigeria norway pakistan peru philippines poland portugal qatar "
        "romania russia scotland serbia singapore slovakia slovenia somalia spain sudan sweden switzerland syria "
        "taiwan thailand tunisia turkey uganda ukraine usa uk venezuela vietnam wales yemen zimbabwe",
        "city": "amsterdam athens atlanta austin bangkok barcelona beijing berlin boston brussels budapest cairo "
        "chicago dallas delhi denver detroit dubai dublin houston istanbul jakarta london madrid manchester miami "
        "milan moscow mumbai munich oslo paris philadelphia phoenix prague rome seattle seoul shanghai stockholm "
        "sydney tokyo toronto vancouver venice vienna warsaw zurich",
        "tongue": "arabic bengali chinese danish dutch english finnish french german greek hebrew hindi hungarian "
        "italian japanese korean latin mandarin norwegian polish portuguese russian spanish swedish thai turkish "
        "ukrainian urdu vietnamese",
        "format": "csv json xml yaml toml html pdf markdown docx xlsx png jpeg jpg gif svg mp3 mp4 plaintext",
        "scale": "celsius fahrenheit kelvin °c °f",
        "currency": "dollar dollars usd euro euros eur gbp yen jpy rupee rupees inr yuan franc francs peso pesos",
        "forge": "github gitlab bitbucket",
        "code": "python java javascript typescript ruby php perl scala kotlin swift golang rust haskell lua matlab "
        "julia cobol fortran clojure elixir erlang bash powershell sql css c++ c# f# r",
        "system": "windows linux macos mac ubuntu debian fedora centos android ios",
        "database": "mysql postgresql postgres sqlite mongodb redis oracle cassandra mariadb dynamodb",
        "cloud": "aws azure gcp heroku digitalocean",
        "framework": "react angular vue svelte django flask fastapi rails laravel express nextjs pytorch "
        "tensorflow keras pandas numpy",
        "browser": "chrome firefox safari edge opera",
        "colour": "red green blue yellow black white purple pink brown grey gray",
        "planet": "mercury venus mars jupiter saturn uranus neptune pluto",
        "brand": "apple samsung google microsoft amazon tesla ford toyota honda nissan bmw facebook meta twitter "
        "instagram whatsapp netflix spotify uber paypal visa mastercard intel amd nvidia sony dell lenovo "
        "huawei xiaomi",
        "continent": "europe asia africa antarctica oceania",
        "sport": "football soccer basketball baseball tennis cricket rugby hockey golf volleyball",
        "instrument": "guitar piano violin drums flute cello saxophone trumpet ukulele",
        "metal": "gold silver copper iron platinum aluminium aluminum",
        "season": "spring summer autumn winter",
        "meal": "breakfast lunch dinner",
        "animal": "dog cat horse cow pig chicken fish bird rabbit hamster",
    }.items()
    for word in words.split()
}

REQUESTS = frozenset({"GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS"})
"""What a request over HTTP does: one category more, of words that belong to it only as written here."""
