package rekey_test

import (
	"testing"

	"pqlab/suites/rekey"
	"pqlab/suites/testlab"
)

func TestMain(m *testing.M)  { testlab.Main(m) }
func TestRekey(t *testing.T) { testlab.Run(t, "rekey", rekey.Specs) }
