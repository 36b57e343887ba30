//! mentat-tests
