from papercommons.testing.hostile import check_options


def test_no_option_is_upset_by_a_value(tmp_path):
    check_options("d-tiil", tmp_path)
