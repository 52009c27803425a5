package interop_test

import (
	"testing"

	"pqlab/suites/interop"
	"pqlab/suites/testlab"
)

func TestMain(m *testing.M)    { testlab.Main(m) }
func TestInterop(t *testing.T) { testlab.Run(t, "interop", interop.Specs) }
