package arch

import (
	"go/ast"
	"strings"
	"testing"
)

// TestEveryRefusalNamesTheNextStep: a refusal that leaves people alone with it is
// half an answer.
func TestEveryRefusalNamesTheNextStep(t *testing.T) {
	for _, f := range sources(t, "", func(name string) bool { return isCode(name) && !strings.Contains(name, "/tests/") }) {
		named := map[ast.Node]bool{} // made by a call that is followed by WithNext
		ast.Inspect(f.file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			inner, chained := sel.X.(*ast.CallExpr)
			if chained && (sel.Sel.Name == "WithNext" || named[call]) {
				named[inner] = true
			}
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == "contract" && sel.Sel.Name == "Refuse" && !named[call] {
				t.Errorf("%s: a refusal without a next step", f.set.Position(call.Pos()))
			}
			return true
		})
	}
}
