package main

import (
	"strings"
	"testing"

	"pqlab/topology"
)

// The help of link set names each key that it takes.
func TestLinkSetKeys(t *testing.T) {
	t.Parallel()
	words := strings.FieldsFunc(newLinkSet().Long, func(r rune) bool { return strings.ContainsRune(" ,\n", r) })
	named := map[string]bool{}
	for _, w := range words {
		named[w] = true
	}
	keys := append(topology.ShapeKeys(), "delay", "rate_trace", "queue", "loss_trace", "outages", "distance", "walls", "path", "mcs", "max_ampdu")
	for _, key := range append(keys, topology.StationKeys()...) {
		if !named[key] {
			t.Errorf("no %s in %q", key, newLinkSet().Long)
		}
	}
}
