package handshake_test

import (
	"testing"

	"pqlab/suites/handshake"
	"pqlab/suites/testlab"
)

func TestMain(m *testing.M) { testlab.Main(m) }

func TestHandshake(t *testing.T) { testlab.Run(t, "handshake", handshake.Specs) }
