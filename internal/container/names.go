// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package container

import (
	"math/rand/v2"
	"strconv"
)

// A container without a name gets an adjective and the surname of somebody who
// moved computing, as Docker's users are used to.
var adjectives = []string{
	"able", "agile", "amber", "ample", "arctic", "bold", "brave", "breezy", "bright", "brisk", "calm", "candid", "careful", "cheerful",
	"civil", "clear", "clever", "cosy", "crisp", "daring", "deft", "eager", "earnest", "easy", "fair", "fearless", "fluent", "fond",
	"frank", "fresh", "gentle", "glad", "golden", "grand", "happy", "hardy", "honest", "humble", "jolly", "keen", "kind", "lively",
	"lucid", "lucky", "mellow", "merry", "mighty", "modest", "neat", "nimble", "noble", "patient", "placid", "plucky", "polite", "prime",
	"proud", "quick", "quiet", "rapid", "ready", "robust", "serene", "sharp", "shiny", "silent", "smart", "snug", "solid", "spry",
	"steady", "sunny", "swift", "tidy", "trusty", "upbeat", "vivid", "warm", "wise", "witty", "zealous", "zesty",
}

var surnames = []string{
	"aiken", "allen", "babbage", "bartik", "berners", "booth", "borg", "brooks", "cerf", "church", "clarke", "codd", "conway", "cray",
	"dahl", "diffie", "dijkstra", "easley", "eckert", "engelbart", "estrin", "feinler", "floyd", "goldberg", "granville", "gray",
	"hamilton", "hamming", "hejlsberg", "hellman", "hoare", "holberton", "hopper", "huffman", "iverson", "joy", "kahn", "kay", "keller",
	"kernighan", "kilburn", "kleene", "knuth", "lamarr", "lamport", "liskov", "lovelace", "mauchly", "mccarthy", "mcclure", "meeker",
	"merkle", "milner", "moore", "naur", "neumann", "newell", "nygaard", "pascal", "perlis", "perlman", "pike", "postel", "ritchie",
	"rivest", "sammet", "shamir", "shannon", "spence", "stallings", "stroustrup", "sutherland", "tarjan", "thompson", "torvalds", "turing",
	"wilkes", "wing", "wirth", "zuse",
}

// randomName makes a name; from the third try on a number makes it rarer.
func randomName(try int) string {
	name := adjectives[rand.IntN(len(adjectives))] + "_" + surnames[rand.IntN(len(surnames))]
	if try > 2 {
		name += strconv.Itoa(rand.IntN(1 << min(try, 30)))
	}
	return name
}
