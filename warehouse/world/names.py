"""Names of the world's categories, brands and countries, so that reports read like a shop."""

from __future__ import annotations

# Department -> category -> three leaves. A leaf's name is also the product noun in titles.
CATEGORIES: dict[str, dict[str, tuple[str, str, str]]] = {
    "Home": {
        "Furniture": ("Armchair", "Coffee Table", "Bookshelf"),
        "Lighting": ("Floor Lamp", "Pendant Light", "Desk Lamp"),
        "Textiles": ("Rug", "Curtain", "Cushion"),
        "Wall Decor": ("Mirror", "Art Print", "Wall Clock"),
    },
    "Kitchen": {
        "Cookware": ("Frying Pan", "Dutch Oven", "Wok"),
        "Tableware": ("Dinner Plate", "Bowl", "Serving Dish"),
        "Appliances": ("Coffee Maker", "Blender", "Toaster"),
        "Storage": ("Food Container", "Spice Rack", "Bread Box"),
    },
    "Women": {
        "Clothing": ("Summer Dress", "Blouse", "Skirt"),
        "Shoes": ("Sandal", "Ankle Boot", "Ballet Flat"),
        "Bags": ("Tote Bag", "Clutch", "Shoulder Bag"),
        "Jewellery": ("Necklace", "Earrings", "Bracelet"),
    },
    "Men": {
        "Clothing": ("Shirt", "Chinos", "Sweater"),
        "Shoes": ("Sneaker", "Loafer", "Derby Shoe"),
        "Accessories": ("Belt", "Wallet", "Tie"),
        "Grooming": ("Beard Oil", "Razor", "Shaving Cream"),
    },
    "Beauty": {
        "Skin Care": ("Face Serum", "Moisturiser", "Cleanser"),
        "Make-up": ("Lipstick", "Mascara", "Foundation"),
        "Hair": ("Shampoo", "Hair Mask", "Hair Dryer"),
        "Fragrance": ("Eau de Parfum", "Body Mist", "Scented Candle"),
    },
    "Baby": {
        "Nursery": ("Crib", "Changing Table", "Night Light"),
        "Travel": ("Stroller", "Car Seat", "Baby Carrier"),
        "Feeding": ("High Chair", "Baby Bottle", "Bib"),
        "Toys": ("Stacking Toy", "Rattle", "Play Mat"),
    },
    "Garden": {
        "Outdoor Furniture": ("Garden Bench", "Hammock", "Sun Lounger"),
        "Plants": ("Lavender", "Olive Tree", "Fern"),
        "Tools": ("Pruner", "Watering Can", "Trowel"),
        "Barbecue": ("Charcoal Grill", "Grill Brush", "Fire Pit"),
    },
    "Sports": {
        "Running": ("Running Shoe", "Running Shorts", "Running Belt"),
        "Yoga": ("Yoga Mat", "Yoga Block", "Leggings"),
        "Camping": ("Tent", "Sleeping Bag", "Camping Stove"),
        "Cycling": ("Bike Helmet", "Bike Light", "Cycling Jersey"),
    },
    "Electronics": {
        "Audio": ("Headphones", "Speaker", "Turntable"),
        "Photo": ("Camera", "Tripod", "Camera Bag"),
        "Computing": ("Keyboard", "Monitor", "Laptop Stand"),
        "Smart Home": ("Smart Bulb", "Thermostat", "Doorbell"),
    },
    "Crafts": {
        "Knitting": ("Yarn", "Knitting Needles", "Knitting Pattern"),
        "Painting": ("Watercolour Set", "Easel", "Paint Brush"),
        "Sewing": ("Sewing Machine", "Fabric", "Thread Set"),
        "Paper": ("Washi Tape", "Planner", "Sticker Set"),
    },
    "Pets": {
        "Dogs": ("Dog Bed", "Dog Leash", "Dog Toy"),
        "Cats": ("Cat Tree", "Litter Box", "Cat Toy"),
        "Fish": ("Aquarium", "Fish Food", "Water Filter"),
        "Birds": ("Bird Cage", "Bird Feeder", "Bird Bath"),
    },
    "Wedding": {
        "Bride": ("Wedding Dress", "Veil", "Bridal Shoe"),
        "Decoration": ("Table Runner", "Fairy Lights", "Balloon Arch"),
        "Stationery": ("Invitation", "Place Card", "Guest Book"),
        "Gifts": ("Cake Topper", "Favour Box", "Ring Dish"),
    },
}

# Two words for each style dimension: its positive and its negative end.
STYLE_WORDS: tuple[tuple[str, str], ...] = (
    ("Modern", "Vintage"),
    ("Minimal", "Ornate"),
    ("Natural", "Industrial"),
    ("Colourful", "Neutral"),
    ("Soft", "Bold"),
    ("Rustic", "Polished"),
    ("Light", "Dark"),
    ("Playful", "Classic"),
)
STYLE_DIMENSIONS = len(STYLE_WORDS)

# Uses of an item, which no category tells; their shares.
USES = ("Everyday", "Gifts", "Travel", "Parties", "Small Spaces")
USE_SHARES = (0.4, 0.2, 0.15, 0.15, 0.1)

BRAND_FIRST = ("Nord", "Alder", "Luma", "Casa", "Willow", "Ember", "Fjord", "Maple", "Sol", "Terra", "Opal", "Juni")
BRAND_LAST = ("wick", "haus", "field", "and Co", "line", "stone", "works", "bloom", "craft", "lane", "mark", "nest")

COUNTRIES = ("US", "CA", "GB", "DE", "FR", "BR")
COUNTRY_SHARES = (0.5, 0.08, 0.14, 0.12, 0.09, 0.07)
# Odds of a conversion onsite against the first country's: payment, delivery and purchasing power differ.
COUNTRY_VALUES = (1.0, 0.9, 0.9, 0.7, 0.7, 0.4)
TOP_COUNTRIES = ("US", "CA", "GB")
GENDERS = ("female", "male", "unspecified")
GENDER_SHARES = (0.64, 0.28, 0.08)
